"""The configuration: one YAML file, validated completely by `parley.config.loader`."""

from parley.config.admin import AdminConfig
from parley.config.auth import Auth, Issuer, PageClient, is_secure_url
from parley.config.backends import (
    AnthropicBackend,
    AnyLLMBackend,
    BackendConfig,
    HealthCheck,
    HttpBackend,
    HttpHealthCheck,
    LlamaCppBackend,
    OpenAIBackend,
    ParleyBackend,
    Reasoning,
)
from parley.config.budgets import Budgets, Webhook
from parley.config.cache import Cache
from parley.config.file import Config
from parley.config.guards import Guard
from parley.config.limits import (
    DEFAULT_PLANS,
    LIMIT_NAMES,
    STORAGE_LIMITS,
    UNLIMITED,
    Limits,
    LimitsConfig,
    Plan,
    default_plan,
    merged,
)
from parley.config.metadata import Metadata, Price
from parley.config.model_index import ModelIndex
from parley.config.models import Alias, History, Model, Retries, Timeouts
from parley.config.parameter_changes import Accepts, ParameterChanges, merged_changes
from parley.config.stores import PostgresConfig, Retention, SqliteConfig, StoreConfig
from parley.config.targets import WILDCARD, Target, target_name
from parley.config.types import ConfigError, Duration
from parley.config.upstream_requests import RemoteBackend, UpstreamRequests
from parley.config.vendor import ReasoningRule, Vendor
from parley.config.vendor_rows import VENDORS
from parley.config.vendors import vendor_of

__all__ = [
    "DEFAULT_PLANS",
    "LIMIT_NAMES",
    "STORAGE_LIMITS",
    "UNLIMITED",
    "VENDORS",
    "WILDCARD",
    "Accepts",
    "AdminConfig",
    "Alias",
    "AnthropicBackend",
    "AnyLLMBackend",
    "Auth",
    "BackendConfig",
    "Budgets",
    "Cache",
    "Config",
    "ConfigError",
    "Duration",
    "Guard",
    "HealthCheck",
    "History",
    "HttpBackend",
    "HttpHealthCheck",
    "Issuer",
    "Limits",
    "LimitsConfig",
    "LlamaCppBackend",
    "Metadata",
    "Model",
    "ModelIndex",
    "OpenAIBackend",
    "PageClient",
    "ParameterChanges",
    "ParleyBackend",
    "Plan",
    "PostgresConfig",
    "Price",
    "Reasoning",
    "ReasoningRule",
    "RemoteBackend",
    "Retention",
    "Retries",
    "SqliteConfig",
    "StoreConfig",
    "Target",
    "Timeouts",
    "UpstreamRequests",
    "Vendor",
    "Webhook",
    "default_plan",
    "is_secure_url",
    "merged",
    "merged_changes",
    "target_name",
    "vendor_of",
]
