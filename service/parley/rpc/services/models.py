"""The `Models` service: lists the models that a request may name, and what is known of each."""

from parley import config
from parley.core.routing.router import Router
from parley.rpc.call import caller
from parley.rpc.call_handler import Context
from parley.v1 import models_pb2 as messages
from parley.v1 import models_pb2_grpc as services

# The configuration has no creation times. A constant is equal in all workers and replicas, and after a restart.
_CREATED = 1767225600  # 2026-01-01T00:00:00Z
_MILLION = 1_000_000


class ModelsServicer(services.ModelsServicer):
    """Serves the models of the configuration."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def ListModels(
        self,
        request: messages.ListModelsRequest,
        context: Context,
    ) -> messages.ListModelsResponse:
        """Lists the models that the caller's key may use."""
        models = [self._model(model) for model in self._router.models(caller())]
        return messages.ListModelsResponse(object="list", data=models)

    async def GetModel(
        self,
        request: messages.GetModelRequest,
        context: Context,
    ) -> messages.Model:
        """Reads one model, the default one, or a wildcard that is listed because none of its names is known."""
        listed = self._router.models(caller()) if request.model.endswith(config.WILDCARD) else ()
        found = next((model for model in listed if model.id == request.model), None)
        return self._model(found or self._router.model(caller(), request.model))

    def _model(self, model: config.Model) -> messages.Model:
        known = self._router.metadata(model)
        owner = known.owner or model.targets[0].backend
        found = messages.Model(id=model.id, object="model", created=_CREATED, owned_by=owner)
        _add_metadata(found, known)
        if (price := self._router.price(model) or known.price) is not None:
            found.pricing.CopyFrom(_pricing(price))
        for alias in model.aliases:
            if alias.is_retired:
                continue
            found.aliases.add(id=alias.id, retires=alias.retires and str(alias.retires))
        return found


def _add_metadata(found: messages.Model, known: config.Metadata) -> None:
    """Adds what is known of a model, in the forms of OpenRouter and vLLM, which chat interfaces read."""
    if known.name is not None:
        found.name = known.name
    if known.description is not None:
        found.description = known.description
    if known.context_length is not None:
        found.context_length = found.max_model_len = found.top_provider.context_length = known.context_length
    if known.max_output is not None:
        found.top_provider.max_completion_tokens = known.max_output
    if known.modalities or known.output_modalities:
        found.architecture.input_modalities.extend(known.modalities or ())
        found.architecture.output_modalities.extend(known.output_modalities or ["text"])
    if known.tools:
        found.supported_parameters.extend(("tools", "tool_choice"))
    if known.reasoning:
        found.supported_parameters.extend(("reasoning", "reasoning_effort"))


def _pricing(price: config.Price) -> messages.Pricing:
    found = messages.Pricing(prompt=_per_token(price.prompt), completion=_per_token(price.completion))
    if price.cached_prompt is not None:
        found.input_cache_read = _per_token(price.cached_prompt)
    return found


def _per_token(price: float) -> str:
    """Returns the price of one token, of the price of a million, without an exponent: `0.00000025`."""
    from decimal import Decimal  # 0.3 MB

    return f"{Decimal(str(price)) / _MILLION:f}"
