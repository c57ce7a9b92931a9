"""Evaluation on public benchmarks: one command, one environment, any checkpoint. `suites.SUITES` names what can be measured."""
