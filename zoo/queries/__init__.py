"""Query strategies: what to ask, given what a fitted learner sees. A Query in one of these files is in the zoo."""

from zoo.queries import bayesian, uncertainty
from zoo.query import Query

FILES = (uncertainty, bayesian)
QUERIES = {query.name: query for file in FILES for query in vars(file).values() if isinstance(query, Query)}
