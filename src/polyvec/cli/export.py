"""``polyvec export``: a model to a folder or a GGUF that other programs run right."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from polyvec.cli.flags import export as flags
from polyvec.cli.options import (
    AttentionOption,
    ForceModelOption,
    JsonOption,
    MaxTokensOption,
    ModelArgument,
    PoolingOption,
)
from polyvec.cli.output import print_json, results_console
from polyvec.hub import resolve

if TYPE_CHECKING:
    from polyvec.publish.export import Exported


def export(
    model: ModelArgument,
    output: flags.Output,
    to: flags.To = None,
    type_name: flags.TypeName = None,
    force: ForceModelOption = False,
    as_json: JsonOption = False,
    attention: AttentionOption = None,
    pooling: PoolingOption = None,
    max_tokens: MaxTokensOption = None,
) -> None:
    """Write a model as a folder or a GGUF, and measure what that changed.

    A folder loads in sentence-transformers and transformers with no remote code. A GGUF says its
    pooling, attention, BOS, EOS and prompts itself: llama.cpp and Ollama need no flag. The result
    is read back and its vectors are compared with the model's, in fp32.

    Examples:

    - `polyvec export default ./smol`
    - `polyvec export hf:nvidia/llama-embed-nemotron-8b nemotron.gguf --type Q4_K_M`
    - `polyvec export old.gguf new.gguf --pooling mean --attention bidirectional`
    """
    from polyvec.model.files import open_model  # these bring torch; only this command needs it
    from polyvec.publish.export import export as write

    place = resolve(model)
    given = {"attention": attention, "pooling": pooling, "max_tokens": max_tokens}
    stated = {**place.facts, **{k: v for k, v in given.items() if v is not None}}
    exported = write(open_model(place.path, stated), output, to, type_name, force)
    if as_json:
        print_json(exported.facts())
    else:
        _print(exported)


def _print(exported: "Exported") -> None:
    console, quality = results_console(), exported.quality
    tensors = ", ".join(f"{count} {kind}" for kind, count in exported.tensors.items())
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("written", exported.path)
    table.add_row("type", exported.type)
    table.add_row("size", f"{exported.size_bytes / 1e6:,.1f} MB in {len(exported.files)} file(s)")
    table.add_row("tensors", tensors)
    table.add_row(
        "cosine to the source",
        f"{quality.cosine_mean:.5f} mean, {quality.cosine_min:.5f} lowest of {quality.vectors}",
    )
    for note in exported.notes:
        table.add_row("note", Text(note))  # plain: a prefix may look like markup
    console.print(table)
