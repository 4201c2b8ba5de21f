"""All settings of the product, from the environment, with defaults that run (`docs/settings.md`)."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy

BASE_DIR = Path(__file__).resolve().parent.parent
TESTING = "pytest" in sys.modules


def flag(name: str, default: bool) -> bool:
    """A yes-or-no setting from the environment."""
    value = os.environ.get(name, "").strip().lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    if value:
        raise ImproperlyConfigured(f"{name}={value!r}: use yes or no")
    return default


def number(name: str, default: int) -> int:
    """A whole number from the environment."""
    value = os.environ.get(name, "").strip()
    try:
        return int(value) if value else default
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}={value!r}: use a whole number") from error


DATA_DIR = Path(os.environ.get("DATA_DIR") or BASE_DIR / ".data").resolve()
if TESTING:  # each test process has a data directory, a database and a Valkey of its own
    DATA_DIR = Path(tempfile.gettempdir()) / f"laadplein-tests-{os.getpid()}"
    DATA_DIR.mkdir(mode=0o700, exist_ok=True)
WEB_PORT = number("WEB_PORT", 8000)
OCPP_PORT = number("OCPP_PORT", 9000)
BIND = os.environ.get("BIND", "127.0.0.1")
DEBUG = flag("DEBUG", False)


def _secret_key() -> str:
    """From SECRET_KEY, else a key of this installation's own, made once and readable by its owner only."""
    if key := os.environ.get("SECRET_KEY"):
        return key
    path = DATA_DIR / "secret_key"
    try:
        return path.read_text().strip()
    except OSError:
        pass
    key = secrets.token_urlsafe(50)
    try:
        DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    except OSError:
        return key  # nothing can be written: `up` says so in its own words; other commands need no lasting key
    with os.fdopen(handle, "w") as file:
        file.write(key)
    return key


def embedded_redis_socket(data_dir: Path) -> Path:
    """Where the embedded Valkey of a data directory listens. Unix socket paths end at about 107 bytes."""
    path = data_dir / "valkey.sock"
    if len(str(path)) <= 100:
        return path
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"laadplein-{os.getuid()}-{digest}" / "valkey.sock"


SECRET_KEY = "tests-only" if TESTING else _secret_key()

ALLOWED_HOSTS = [h for h in os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",") if h]
CSRF_TRUSTED_ORIGINS = [o for o in os.environ.get("CSRF_TRUSTED_ORIGINS", "").split(",") if o]

REDIS_URL = f"unix://{embedded_redis_socket(DATA_DIR)}"
if not TESTING:
    REDIS_URL = os.environ.get("REDIS_URL") or REDIS_URL
MQTT_URL = os.environ.get("MQTT_URL", "")

_database_url = os.environ.get("DATABASE_URL") or f"sqlite:///{DATA_DIR / 'laadplein.sqlite3'}"
DATABASES: dict[str, Any] = {"default": dj_database_url.parse(_database_url)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # IMMEDIATE is not optional: deferred read-then-write transactions fail at once under several processes.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY;"
            "PRAGMA cache_size=-20000; PRAGMA journal_size_limit=67108864;"
        ),
    }
    # A file, so that threads and processes of one test see the same rows.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "tests.sqlite3")}
DATABASES["default"]["CONN_MAX_AGE"] = None
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "unfold.contrib.import_export",
    "unfold.contrib.simple_history",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "import_export",
    "simple_history",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "axes",
    "csp",
    "meters",
    "csms",
    "smartcharging",
    "webapp",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "webapp.clock.SiteClock",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
    "axes.middleware.AxesMiddleware",
]

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
if TESTING:  # a test makes hundreds of people and stations; what a hash costs is no part of what it tests
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
AXES_ENABLED = not TESTING
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
ACCOUNT_ADAPTER = "webapp.accounts.NoSignup"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"

ROOT_URLCONF = "webapp.urls"
WSGI_APPLICATION = "webapp.wsgi.application"
ASGI_APPLICATION = "webapp.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "webapp" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

LANGUAGE_CODE = os.environ.get("LANGUAGE_CODE", "en")
LANGUAGES = [("en", "English"), ("nl", "Nederlands")]
LOCALE_PATHS = [BASE_DIR / "webapp" / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True
FORMAT_MODULE_PATH = ["webapp.formats"]

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "webapp" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if TESTING or DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_AUTOREFRESH = TESTING or DEBUG
MEDIA_ROOT = DATA_DIR / "media"

SECURE_COOKIES = flag("SECURE_COOKIES", False)  # yes behind TLS
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_COOKIES
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 14 * 24 * 3600
SECURE_HSTS_SECONDS = number("HSTS_SECONDS", 0)
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if flag("BEHIND_TLS_PROXY", False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        # Unfold's Alpine and htmx evaluate expressions and set styles; nothing is loaded from elsewhere.
        "script-src": ["'self'", "'unsafe-inline'", "'unsafe-eval'"],
        "style-src": ["'self'", "'unsafe-inline'"],
        "connect-src": ["'self'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
        "base-uri": ["'self'"],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_500_000
FILE_UPLOAD_MAX_MEMORY_SIZE = 2_500_000

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 100,
    "DEFAULT_FILTER_BACKENDS": ["webapp.api.filters.KnownFilters"],
    "DEFAULT_THROTTLE_CLASSES": [
        "rest_framework.throttling.UserRateThrottle",
        "rest_framework.throttling.AnonRateThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {"user": "6000/min", "anon": "60/min"},
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Laadplein",
    "DESCRIPTION": "Charging stations, goals, plans and energy of your sites.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {  # more than one record has a kind
        "AlarmKindEnum": "csms.obedience_models.Alarm.Kind",
        "DeviceKindEnum": "meters.models.Device.Kind",
        "LogKindEnum": "csms.workflow_models.LogRequest.Kind",
    },
}

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "cache",
    }
}
if TESTING:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# Celery: two queues, so that protection never waits behind planning. Early acknowledgement and `expires` on every
# periodic tick: with late acknowledgement a moment without the broker ends the worker (kombu 5.7).
CELERY_BROKER_URL = (
    "redis+socket://" + REDIS_URL.removeprefix("unix://") if REDIS_URL.startswith("unix://") else REDIS_URL
)
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_ALWAYS_EAGER = False
CELERY_TASK_DEFAULT_QUEUE = "slow"
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "UTC"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_IMPORTS = ("webapp.task_metrics",)

# The station gateway.
OCPP_BIND = os.environ.get("OCPP_BIND") or BIND
OCPP_HEARTBEAT_S = number("OCPP_HEARTBEAT_S", 300)
OCPP_METER_INTERVAL_S = number("OCPP_METER_INTERVAL_S", 10)
OCPP_CALL_TIMEOUT_S = number("OCPP_CALL_TIMEOUT_S", 30)
OCPP_ALLOW_UNKNOWN = flag("OCPP_ALLOW_UNKNOWN", True)  # unknown stations may connect, into quarantine
OCPP_MAX_QUARANTINED = number("OCPP_MAX_QUARANTINED", 200)
OCPP_MAX_FRAME_BYTES = number("OCPP_MAX_FRAME_BYTES", 262_144)
OCPP_MAX_MESSAGES_PER_S = number("OCPP_MAX_MESSAGES_PER_S", 100)
OCPP_LOG_HEARTBEATS = flag("OCPP_LOG_HEARTBEATS", True)  # keep them in the message log
GATEWAYS = max(1, number("GATEWAYS", 1))  # gateway processes of this machine, all at the same port
OCPP_TLS_CERT = os.environ.get("OCPP_TLS_CERT", "")
OCPP_TLS_KEY = os.environ.get("OCPP_TLS_KEY", "")
OCPP_TLS_CLIENT_CA = os.environ.get("OCPP_TLS_CLIENT_CA", "")
OCPP_LISTENERS = os.environ.get("OCPP_LISTENERS", "")  # instead of OCPP_PORT and OCPP_TLS_*: see csms/listeners.py
OCPP_LEAST_PROFILE = number("OCPP_LEAST_PROFILE", 1)  # security profile asked of stations for which nothing is set
OCPP_PASSWORD_GRACE_H = number("OCPP_PASSWORD_GRACE_H", 72)
OCPP_CA_DIR = Path(os.environ.get("OCPP_CA_DIR") or DATA_DIR / "authority")
OCPP_CPO_NAME = os.environ.get("OCPP_CPO_NAME", "")
OCPP_CERTIFICATE_DAYS = number("OCPP_CERTIFICATE_DAYS", 365)
OCPP_PUBLIC_URL = os.environ.get("OCPP_PUBLIC_URL", "")  # told to stations that move to a higher profile (2.0.1)
OCPP_CERTIFICATE_PROVIDER = os.environ.get("OCPP_CERTIFICATE_PROVIDER", "")
OCPP_OCSP_HOSTS = [h.strip().lower() for h in os.environ.get("OCPP_OCSP_HOSTS", "").split(",") if h.strip()]
SECURITY_EVENT_KEEP_DAYS = number("SECURITY_EVENT_KEEP_DAYS", 400)
SECURITY_SYSLOG = os.environ.get("SECURITY_SYSLOG", "")  # host:port; security events also go there, as JSON

# Files that stations fetch from the web process or bring to it: firmware and logs (`webapp/station_files.py`).
STATION_FILES_URL = os.environ.get("STATION_FILES_URL") or (
    f"http://{'localhost' if BIND in ('127.0.0.1', '0.0.0.0') else BIND}:{WEB_PORT}"  # noqa: S104 - compared only
)
LOG_UPLOAD_MAX_MB = number("LOG_UPLOAD_MAX_MB", 100)
LOG_KEEP_DAYS = number("LOG_KEEP_DAYS", 90)
FIRMWARE_MAX_MB = number("FIRMWARE_MAX_MB", 500)

# Smart charging.
BALANCE_S = number("BALANCE_S", 5)
PLAN_MINUTES = number("PLAN_MINUTES", 5)
LIMIT_LEASE_S = number("LIMIT_LEASE_S", 300)
READING_KEEP_DAYS = number("READING_KEEP_DAYS", 14)
MESSAGE_KEEP_DAYS = number("MESSAGE_KEEP_DAYS", 30)
ENTSOE_TOKEN = os.environ.get("ENTSOE_TOKEN", "")
FETCH_OUTSIDE = flag("FETCH_OUTSIDE", True)

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Laadplein",
    "SITE_HEADER": "Laadplein",
    "SITE_URL": reverse_lazy("home"),
    "SITE_SYMBOL": "ev_station",
    "SHOW_HISTORY": True,
    "DASHBOARD_CALLBACK": "webapp.office.dashboard",
    "SIDEBAR": {"show_search": True, "navigation": "webapp.office.navigation"},
    "ACCOUNT": {"navigation": "webapp.office.account_links"},
}

LOG_LEVEL = os.environ.get("LOG_LEVEL", "INFO")
LOG_FORMAT = os.environ.get("LOG_FORMAT", "line")  # or json: one object a line
METRICS_TOKEN = os.environ.get("METRICS_TOKEN", "")  # lets a Prometheus read /metrics
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "meters.logs.Plain", "format": "%(levelname)s %(name)s: %(message)s"},
        "json": {"()": "meters.logs.Json"},
        "security": {"format": "laadplein security: %(message)s"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "json" if LOG_FORMAT == "json" else "line"}
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "websockets": {"level": "WARNING"},
        "pymodbus": {"level": "CRITICAL"},
        "httpx": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        "security": {"level": "INFO"},
        # A line for every tick would drown everything else.
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
if SECURITY_SYSLOG:
    _host, _, _port = SECURITY_SYSLOG.rpartition(":")
    if not _port.isdecimal():
        raise ImproperlyConfigured(f"SECURITY_SYSLOG={SECURITY_SYSLOG!r}: use host:port")
    LOGGING["handlers"]["syslog"] = {
        "class": "logging.handlers.SysLogHandler",
        "formatter": "security",
        "address": (_host or "localhost", int(_port)),
        "facility": "authpriv",
    }
    LOGGING["loggers"]["security"]["handlers"] = ["syslog"]
