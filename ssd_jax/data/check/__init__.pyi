from .box_coverage import measure_box_coverage as measure_box_coverage
from .checks import DataSetCheck as DataSetCheck
from .checks import check_data_set as check_data_set
from .clean_copy import write_clean_copy as write_clean_copy
from .summary import format_box_coverage as format_box_coverage
from .summary import format_counts as format_counts
from .summary import format_problems as format_problems

__all__ = [
    "DataSetCheck",
    "check_data_set",
    "format_box_coverage",
    "format_counts",
    "format_problems",
    "measure_box_coverage",
    "write_clean_copy",
]
