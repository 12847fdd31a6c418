from .programs import Report as Report
from .programs import compile_programs as compile_programs
from .report import format_report as format_report
from .report import format_table as format_table
from .targets import Target as Target
from .targets import parse_target as parse_target

__all__ = ["Report", "Target", "compile_programs", "format_report", "format_table", "parse_target"]
