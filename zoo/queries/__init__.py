"""Query strategies: what to ask, given what a fitted learner sees. A Query in one of these files is in the zoo."""

from zoo.queries import bayesian, boundary, discriminative, diversity, gradient, propagation, typicality, uncertainty
from zoo.query import Query

FILES = (bayesian, boundary, discriminative, diversity, gradient, propagation, typicality, uncertainty)
QUERIES = {query.name: query for file in FILES for query in vars(file).values() if isinstance(query, Query)}
