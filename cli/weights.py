"""Commands that show, pack and export weights files."""

from __future__ import annotations

from pathlib import Path

import click

from .common import commands, json_option, plainly, prepare, print_json, print_table, short, tell


@commands.group()
def weights() -> None:
    """Show, pack and export weights files.

    SOURCE is a run id, runs:/…, models:/name@alias, or any weights file: a state_dict, a
    checkpoint, or safetensors, of whatever origin. No code in a file is run.
    """


@weights.command("show")
@click.argument("source")
@json_option
def show_weights(source: str, as_json: bool) -> None:
    """Show what SOURCE holds.

    Prints models, keys, shapes, dtypes, and what else is in the file.
    """
    prepare()
    from ..tasks.assembly import describe_source

    found = describe_source(source)
    if as_json:
        print_json(found)
        return
    click.echo(
        f"file      {found['path']} ({found['file_bytes']:,} bytes)\nform      "
        f"{plainly(found['form'])}"
    )
    for name, value in found["extras"].items():
        click.echo(f"value     {plainly(name)} = {short(plainly(value))}")
    if found["others"]:
        click.echo(f"other     {', '.join(map(plainly, found['others']))}")
    for name, model in found["models"].items():
        click.echo(f"\nmodel     {plainly(name)}" if name else "")
        prefix = f", all keys begin with {plainly(model['prefix'])}" if model["prefix"] else ""
        click.echo(
            f"{model['parameters']:,} parameters in {len(model['tensors'])} tensors, "
            f"{model['bytes']:,} bytes{prefix}"
            f"{'; with its optimizer' if model['has_optimizer'] else ''}\nsha256    "
            f"{model['sha256']}"
        )
        rows = [
            (plainly(row["key"]), " x ".join(map(str, row["shape"])) or "one", row["dtype"])
            for row in model["tensors"]
        ]
        print_table(("key", "shape", "dtype"), rows)


@weights.command("pack")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--out", required=True, type=click.Path(), help="File to write, .pt or .tar.")
@click.option(
    "--name",
    "named",
    multiple=True,
    metavar="NAME=SOURCE",
    help="Name for the model of a SOURCE; may be repeated.",
)
@json_option
def pack_weights(sources: tuple[str, ...], out: str, named: tuple[str, ...], as_json: bool) -> None:
    """Write several models into one file, with their optimizers' states."""
    names = {source: name for name, _, source in (item.partition("=") for item in named)}
    odd = [
        item
        for item in named
        if "=" not in item or item.partition("=")[2] not in sources or item[0] == "="
    ]
    if odd:
        raise click.UsageError(
            f"--name {odd[0]}: expected NAME=SOURCE with one of {', '.join(sources)}"
        )
    prepare()
    from ..tasks.assembly import pack_sources

    parts = pack_sources(sources, names, Path(out))
    said = [
        {
            "name": part.name,
            "source": part.label,
            "tensors": len(part.state),
            "optimizer": part.optimizer is not None,
        }
        for part in parts
    ]
    for part in said:
        tell(
            f"{part['name']}: {part['source']}, {'with' if part['optimizer'] else 'without'} its "
            "optimizer's state"
        )
    tell(
        f"packed    {out}\nnext      torchrelay weights export {out} --model {parts[0].name} -o "
        f"{parts[0].name}.pt"
    )
    if as_json:
        print_json({"path": str(Path(out).absolute()), "models": said})


@weights.command("export")
@click.argument("source")
@click.option(
    "-o", "--out", required=True, type=click.Path(), help="File to write, .pt or .safetensors."
)
@click.option("--model", default="", metavar="NAME", help="Model to export from a file of several.")
@click.option(
    "--strip-prefix",
    default="",
    metavar="TEXT",
    help="Prefix to remove from every key.",
)
@click.option(
    "--with-optimizer",
    is_flag=True,
    help="Write a checkpoint with the optimizer's state, to train on from.",
)
@json_option
def export_weights(
    source: str, out: str, model: str, strip_prefix: str, with_optimizer: bool, as_json: bool
) -> None:
    """Write the state_dict of one model for inference.

    Removes the prefix module. that DataParallel adds.
    """
    prepare()
    from ..tasks.assembly import export_source

    part = export_source(source, Path(out), model, strip_prefix, with_optimizer=with_optimizer)
    tell(
        f"exported  {out}: {len(part.state)} tensors of {part.label}\nnext      torchrelay weights "
        f"show {out}"
    )
    if as_json:
        values = {"source": part.label, "tensors": len(part.state), "optimizer": with_optimizer}
        print_json({"path": str(Path(out).absolute()), **values})
