"""Strikes secrets out of text, recognised by their format.

The formats of keys are those that gitleaks and detect-secrets know, by their prefix.
"""

import re

STRUCK = "…"

_PREFIXES = (
    # AI vendors
    r"(?:sk|pk|rk)-(?:ant-|proj-|or-|svcacct-|admin-|lf-)?",
    r"(?:gsk|hf|r8|nvapi|fw|tgp|csk|xai|pplx|jina|voyage|pa|dop|rpa|api_org|tvly|fc|e2b|lsv2|wandb|ms|cpk|key|co)[-_]",
    # Clouds
    r"(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA|ANVA|APKA)(?=[A-Z0-9])|AIza|ya29\.|GOCSPX-|1//0|LTAI|AKID|DO00|dapi|dose",
    # Code and packages
    r"gh[pousr]_|github_pat_|gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-|npm_|pypi-|dckr_(?:pat|oat)_|rubygems_|ATATT|ATBB",
    # Services
    r"xox[abceoprs]-|xapp-|xoxe\.|SG\.|(?:sk|pk|rk|whsec)_(?:live_|test_)?|shp(?:at|ca|pa|ss)_|sq0(?:atp|csp|idp)-|EAAA|hv[sbr]\.",
    r"PMAK-|lin_api_|ntn_|secret_|glc_|glsa_|dp\.(?:pt|st|ct|sa)\.|sntrys_|sntryu_|pul-|AGE-SECRET-KEY-|key-|org-|proj[-_]|acct[-_]",
    r"req[-_]|NRAK-|phc_|rdme_|figd_|sbp_|sb_secret_|tfp_|vc[pik]_|cfut_|CLOJARS_|ops_ey|PKB|AC(?=[0-9a-f]{32})",
)
_KEYS = re.compile(
    r"(?<![A-Za-z0-9_])(?:" + "|".join(_PREFIXES) + r")(?=[\w.*+/=-]*[\d*A-Z])[\w.*+/=-]{4,}"
    r"|(?<![A-Za-z0-9_])(?i:(?:sk|pk|xai)-|(?:gsk|hf|gh[pousr]|r8|npm)_)[\w.*-]{4,}"
    r"|(?<![A-Za-z0-9])(?i:AKIA|ASIA|AIza|ya29)[\w.-]{8,}"
    r"|(?<!\d)\d{8,10}:AA[\w-]{30,}"  # Telegram
)
_FORMS = re.compile(
    r"""
    (?<=://)[^/\s@]+(?:@[^/\s@]*)*(?=@)                          # user and password of a URL
    | (?<=[?&\#;])[^\s"'<>)]+                                     # a URL's query
    | (?<=\bBearer\ )\S+ | (?<=\bBasic\ )\S+
    | (?<=\bauthorization:\ )(?:[a-z]+\ )?\S+ | (?<=\bcookie:\ )[^\r\n]+
    | hooks\.slack\.com/\S+ | discord(?:app)?\.com/api/webhooks/\S+
    | \beyJ[\w-]+(?:\.[\w-]+){0,4}                                # JSON web tokens
    | [0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}                 # UUIDs
    | -----BEGIN[^-]*-----[\s\S]*?(?:-----END[^-]*-----|$)
    | \b\w{1,8}\*{3,}\w{0,8}                                      # keys masked by the upstream
    """,
    re.VERBOSE | re.IGNORECASE,
)
# password=…, "api_key": "…"
_NAMED = re.compile(
    r"""((?:pass(?:word|wd|phrase|code)?|pwd|secret|client_secret|credentials?|x?[-_]?api[-_ ]?key|private[-_ ]?key
    |access[-_ ]?key(?:[-_ ]?id)?|(?:account|session)[-_ ]?key
    |auth(?:orization)?|(?<![\w-])token(?=["'`]?\s*=)|x-[a-z-]*token
    |(?:access|auth|refresh|id|session|bearer|api|secret|security)[-_ ]?token
    |(?:set-)?cookie|connection[-_ ]?string|signature|sig)
    (?:["'`]?\s*=\s*["'`]?|["'`]?\s*:\s*["'`]|["'`]?\s*:\s*(?=[^\s"'`,;&]*\d)))(?!\s)([^\s"'`,;&<>)}\]]+)""",
    re.VERBOSE | re.IGNORECASE,
)
# Random-looking runs: at least 20 characters with letters and digits, or at least 16 hexadecimal digits.
_LONG = re.compile(
    r"(?<![A-Za-z0-9+/])(?=[A-Za-z0-9+/]*\d)(?=[A-Za-z0-9+/]*[A-Za-z])(?:[0-9A-Fa-f]{16,}|[A-Za-z0-9+/]{20,}={0,2})"
    r"(?![A-Za-z0-9+/=])"
)


def strike(text: str) -> str:
    """Replaces everything that looks like a secret by an ellipsis."""
    text = _KEYS.sub(STRUCK, _FORMS.sub(STRUCK, text))
    text = _NAMED.sub(lambda found: found.group(1) + STRUCK, text)
    return _LONG.sub(STRUCK, text)
