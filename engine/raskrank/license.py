"""What a model's license says about its use, as far as its name does."""

# Creative Commons' identifiers without commercial use all begin so: cc-by-nc-4.0, cc-by-nc-sa-4.0, cc-by-nc-nd-3.0, ...
NON_COMMERCIAL = "cc-by-nc"


def restricts_use(license: str | None) -> bool:
    """Whether the license, as model cards spell it, forbids commercial use."""
    return license is not None and license.lower().startswith(NON_COMMERCIAL)


def note(name: str, license: str | None) -> str | None:
    """What to tell who uses the model, if it is restricted."""
    return f"note: {name} has the license {license}, which does not allow commercial use" if restricts_use(license) else None
