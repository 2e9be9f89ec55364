"""A study of sensitivity as JSON and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pipeline.sensitivity.result import SensitivityResult


def layers_csv(result: SensitivityResult) -> str:
    """One line for each layer; drops are against float, gains against the quantized network."""
    rows = []
    for figures in result.layers:
        alone, spared, all_of_them = (
            figures.effects.alone,
            figures.effects.spared,
            result.quantized,
        )
        rows.append(
            asdict(figures.layer)
            | {
                "local_sqnr_db": figures.local_sqnr_db,
                "alone_sqnr_db": alone.sqnr_db,
                "alone_agreement": alone.agreement,
                "alone_top1_drop": result.float_top1 - alone.top1,
                "spared_sqnr_gain_db": spared.sqnr_db - all_of_them.sqnr_db,
                "spared_agreement_gain": spared.agreement - all_of_them.agreement,
                "spared_top1_gain": spared.top1 - all_of_them.top1,
            }
        )
    return _csv(rows)


def ranges_csv(result: SensitivityResult) -> str:
    """One line for each stored tensor; the channels are in the JSON file."""
    rows = []
    for found in result.ranges:
        chosen = found.quantizer
        rows.append(
            {
                "name": found.name,
                "role": found.role,
                "module_path": found.module_path,
                "min": found.low,
                "max": found.high,
                **{f"p{percent}": value for percent, value in found.percentiles.items()},
                "channels": len(found.channel_low),
                "spread": found.spread,
                "clipped": found.clipped,
                "operator": chosen.operator,
                "smallest_scale": min(chosen.scale),
                "largest_scale": max(chosen.scale),
                "representable_min": chosen.low,
                "representable_max": chosen.high,
            }
        )
    return _csv(rows)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
