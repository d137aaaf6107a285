"""Query strategies: what to ask, given what a fitted learner sees. To add one, list it here."""

from zoo.queries.uncertainty import entropy, least_confident, margin, random

QUERIES = {query.name: query for query in (random, least_confident, margin, entropy)}
