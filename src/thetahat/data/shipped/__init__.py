"""The tables that come with the package: small, real, and of known answer. README.md beside this file says
whence they are."""

from __future__ import annotations

from pathlib import Path

from ...errors import BadArgument

FOLDER = Path(__file__).parent


def shipped(name: str) -> Path:
    """The path of a table that comes with the package.

        ships        34 classes of cargo ship, their months of service and the damages that waves did to them
        orings       the O-rings of 23 flights of the space shuttle, and the temperature at the start
        mites        European red mites on 150 apple leaves, counted
        stackloss    21 days of a plant that oxidises ammonia
        phones       telephone calls from Belgium, 1950 to 1973; in six years minutes were counted in their place
        baseball     the American League of 1987: who beat whom how often
        pudding      six brands of chocolate pudding, tasted in pairs: which was liked better, or neither
        faithful     272 eruptions of a geyser: how long, and how long until the next
        norris, misra1a    reference data of NIST, for linear and for nonlinear least squares

    Parameters
    ----------
    name
        one of

    Raises
    ------
    BadArgument
        there is no such table

    Examples
    --------
    >>> shipped("ships").name
    'ships.csv'
    """
    known = sorted(path.stem for path in FOLDER.glob("*.csv"))
    if name not in known:
        raise BadArgument(f"no table named {name!r} comes with the package. There are: {', '.join(known)}.")
    return FOLDER / f"{name}.csv"
