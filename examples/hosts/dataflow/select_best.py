"""Score the rows of a file with DataFlow and keep the best 30 %.    python select_best.py"""

from dataflow.pipeline import PipelineABC
from dataflow.utils.storage import FileStorage

from donod_fast.adapters.dataflow import DonodFilter, DonodSampleEvaluator


class SelectPipeline(PipelineABC):
    """Evaluator, then filter."""

    def __init__(self):
        super().__init__()
        self.storage = FileStorage("demo-data/corpus.jsonl", cache_path="out", file_name_prefix="donod")
        self.evaluator = DonodSampleEvaluator(model="demo-data/model", options={"lr": 2e-5})
        self.filter = DonodFilter(keep=0.3)

    def forward(self):
        """Operators in their order, and the columns that they read and write."""
        self.evaluator.run(
            self.storage.step(),
            input_instruction_key="instruction",
            input_input_key="input",
            input_output_key="output",
        )
        self.filter.run(self.storage.step())


if __name__ == "__main__":
    pipeline = SelectPipeline()
    pipeline.compile()
    pipeline.forward()
