"""Commands that list what there is: recipes, named data, references."""

from typing import Annotated

import typer

from narrows.cli.app import app

__all__ = ["cite", "data", "recipes"]


@app.command()
def recipes() -> None:
    """List the recipes, each with its reference and its setting of the equation."""
    import narrows as nr

    for name, line in nr.recipes.names().items():
        model, objective = getattr(nr.recipes, name)((2,), latent=2, context=1)
        corrupted = "" if model.corruption is None else f", x through {model.corruption}"
        typer.echo(f"{name:12} {line}\n{'':12} loss = {objective.equation}{corrupted}")


@app.command()
def data() -> None:
    """List the named data sets."""
    import narrows as nr

    for name, line in nr.data.names().items():
        typer.echo(f"{name:14} {line}")


@app.command()
def cite(
    name: Annotated[str, typer.Argument(help="a recipe, or the folder of a run", metavar="RECIPE|RUN")],
) -> None:
    """Print the BibTeX of exactly the parts that a recipe or a run uses."""
    import json
    from pathlib import Path

    import narrows as nr
    from narrows import references, spec

    if (Path(name) / "config.json").exists():
        used = json.loads((Path(name) / "config.json").read_text())["spec"]
        if used is None:
            raise ValueError(f"{name} was trained on parts of your own, which Narrows cannot cite")
    elif name in nr.recipes.names():
        used = {"recipe": name, "arguments": nr.recipes.defaults(name)}
    else:
        raise ValueError(spec.misspelt("recipe or run", name, nr.recipes.names()))
    typer.echo("\n\n".join(references.cite(used)))
