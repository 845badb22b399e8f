"""The `Models` service: lists the models that a request may name."""

from parley import config
from parley.core.routing.router import Router
from parley.rpc.call import caller
from parley.rpc.interceptors import Context
from parley.v1 import models_pb2 as messages
from parley.v1 import models_pb2_grpc as services

# The configuration has no creation times. A constant is equal in all workers and replicas, and after a restart.
_CREATED = 1767225600  # 2026-01-01T00:00:00Z


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
        """Reads one model."""
        return self._model(self._router.model(caller(), request.model))

    def _model(self, model: config.Model) -> messages.Model:
        owner = model.targets[0].backend
        return messages.Model(id=model.id, object="model", created=_CREATED, owned_by=owner)
