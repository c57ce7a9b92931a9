"""Rollouts by vLLM: a server in its own environment and processes (`server`), asked over HTTP (`client`), with new weights handed over (`weights`)."""
