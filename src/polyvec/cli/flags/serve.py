"""Options of ``polyvec serve``."""

from typing import Annotated

import typer

_NET, _LIMITS, _MODELS, _WATCH = "Network", "Limits", "Models", "Watching"
_SEARCH = "Searching documents"

Models = Annotated[
    list[str] | None,
    typer.Argument(
        help="Alias, folder, .gguf file, hf: or pypi: name; NAME=MODEL serves it under a name. "
        "[default: default]",
        show_default=False,
    ),
]
Host = Annotated[
    str | None,
    typer.Option(help="[default: 127.0.0.1, this machine only]", rich_help_panel=_NET),
]
Port = Annotated[int | None, typer.Option(help="[default: 11434, Ollama's]", rich_help_panel=_NET)]
ApiKeyFile = Annotated[
    str | None,
    typer.Option(
        help="API keys, one a line, plain or sha256:HEX; none: open to all who reach it.",
        rich_help_panel=_NET,
    ),
]
CorsOrigins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin", help="Let web pages of this origin ask; repeat.", rich_help_panel=_NET
    ),
]
ModelMemoryGb = Annotated[
    float | None,
    typer.Option(
        help="Memory of each model's process; more than it has room for is packed or streamed.",
        rich_help_panel=_MODELS,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Of each model's computation.", rich_help_panel=_MODELS),
]
TokenizationThreads = Annotated[
    int | None,
    typer.Option(help="For all models together. [default: 2]", rich_help_panel=_MODELS),
]
MaxMemoryGb = Annotated[
    float | None,
    typer.Option(
        help="Models used longest ago are unloaded to stay below.", rich_help_panel=_MODELS
    ),
]
KeepAlive = Annotated[
    str | None,
    typer.Option(
        help="How long a model stays loaded when idle: 5m, 1h, 0; -1 for ever. [default: -1]",
        rich_help_panel=_MODELS,
    ),
]
MaxBatchTokens = Annotated[
    int | None, typer.Option(help="Tokens computed together.", rich_help_panel=_LIMITS)
]
UrgentTokens = Annotated[
    int | None,
    typer.Option(
        help="Requests of up to so many tokens overtake longer ones. [default: 256]",
        rich_help_panel=_LIMITS,
    ),
]
MaxConnections = Annotated[
    int | None,
    typer.Option(
        help="One more, and one that waits is closed. [default: 2048]", rich_help_panel=_LIMITS
    ),
]
MaxConcurrentRequests = Annotated[
    int | None,
    typer.Option(help="More are answered 429. [default: 512]", rich_help_panel=_LIMITS),
]
MaxQueueTokens = Annotated[
    int | None,
    typer.Option(help="More are answered 429. [default: 2000000]", rich_help_panel=_LIMITS),
]
MaxRequestTokens = Annotated[
    int | None, typer.Option(help="[default: 1000000]", rich_help_panel=_LIMITS)
]
MaxTexts = Annotated[
    int | None,
    typer.Option(help="Texts in a request. [default: 2048]", rich_help_panel=_LIMITS),
]
MaxBodyBytes = Annotated[
    int | None, typer.Option(help="[default: 33554432]", rich_help_panel=_LIMITS)
]
BodyTimeoutS = Annotated[
    float | None,
    typer.Option(
        help="For a request's head, and then its body, to arrive. [default: 30]",
        rich_help_panel=_LIMITS,
    ),
]
RequestTimeoutS = Annotated[
    float | None, typer.Option(help="[default: 600]", rich_help_panel=_LIMITS)
]
KeepConnectionS = Annotated[
    float | None,
    typer.Option(help="For an idle connection. [default: 30]", rich_help_panel=_LIMITS),
]
ShutdownTimeoutS = Annotated[
    float | None,
    typer.Option(
        help="For the requests that are being answered when it is stopped. [default: 30]",
        rich_help_panel=_LIMITS,
    ),
]
LogFormat = Annotated[
    str | None, typer.Option(help="text or json. [default: text]", rich_help_panel=_WATCH)
]
OtlpEndpoint = Annotated[
    str | None,
    typer.Option(help="Send OpenTelemetry traces here.", rich_help_panel=_WATCH),
]
RentalPrices = Annotated[
    bool | None,
    typer.Option(
        "--rental-prices/--no-rental-prices",
        help="Ask Vast.ai and RunPod every hour what renting costs, for /models. "
        "[default: no; the last prices are shown with their age]",
        rich_help_panel=_NET,
        show_default=False,
    ),
]
Indexes = Annotated[
    list[str] | None,
    typer.Option(
        "--index",
        help="An index to search at /search: its place, its name, or the folder it is of; "
        "NAME=INDEX serves it under a name; repeat. [default: none]",
        show_default=False,
        rich_help_panel=_SEARCH,
    ),
]
ChatUrl = Annotated[
    str | None,
    typer.Option(
        help="A chat endpoint in OpenAI's shape that answers questions at /search, up to and "
        "with /v1; its key is read from POLYVEC_CHAT_KEY. [env: POLYVEC_CHAT_URL]",
        rich_help_panel=_SEARCH,
    ),
]
ChatModel = Annotated[
    str | None, typer.Option(help="[env: POLYVEC_CHAT_MODEL]", rich_help_panel=_SEARCH)
]
SearchThreads = Annotated[
    int | None,
    typer.Option(help="Searches at a time. [default: 4]", rich_help_panel=_SEARCH),
]
AllowUpdates = Annotated[
    bool | None,
    typer.Option(
        "--allow-updates/--no-allow-updates",
        help="Let clients, and the page, have indexes brought up to date. [default: no]",
        rich_help_panel=_SEARCH,
        show_default=False,
    ),
]
MaxAnswers = Annotated[
    int | None,
    typer.Option(
        help="Answers of the chat endpoint at a time; more are refused (429). [default: 8]",
        rich_help_panel=_SEARCH,
    ),
]
Check = Annotated[
    bool,
    typer.Option("--check", help="Load and try every model, say what would fail, and end."),
]
