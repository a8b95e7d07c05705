"""``polyvec mcp``: search and ask as tools for assistants."""

from polyvec.cli.flags.ask import MinCosine
from polyvec.cli.options import (
    MESSAGES,
    ChatModelOption,
    ChatUrlOption,
    DeviceOption,
    IndexModelOption,
    IndexOption,
    PrecisionOption,
    StorageOption,
)


def mcp(
    index: IndexOption = None,
    storage_option: StorageOption = None,
    chat_url: ChatUrlOption = None,
    chat_model: ChatModelOption = None,
    min_cosine: MinCosine = None,
    model: IndexModelOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Give assistants your documents: a Model Context Protocol server on standard input and output.

    The tool `search` is always there, `ask` where a chat endpoint is named.

    Examples:

    - `polyvec mcp --index ~/.local/share/polyvec/indexes/Documents-1a2b3c4d`
    - in an assistant's settings: `{"command": "polyvec", "args": ["mcp"]}`
    """
    import os

    from polyvec.search.answer import MIN_COSINE, AskSettings
    from polyvec.search.assistants import tools_server
    from polyvec.search.chat import MODEL_VARIABLE, URL_VARIABLE, chat_settings
    from polyvec.search.place import find_index
    from polyvec.search.retrieve import open_searcher
    from polyvec.search.storage import stated_options

    settings = AskSettings(min_cosine=MIN_COSINE if min_cosine is None else min_cosine)
    stored = stated_options(storage_option or ())
    stated = (chat_url, chat_model, os.environ.get(URL_VARIABLE), os.environ.get(MODEL_VARIABLE))
    chat = chat_settings(chat_url, chat_model) if any(stated) else None
    searcher = open_searcher(find_index(index), "hybrid", precision, device, stored, model)
    server = tools_server(searcher, chat, settings)
    MESSAGES.print(f"Serving {searcher.store.uri} to an assistant; it ends with its input.")
    server.run("stdio")
