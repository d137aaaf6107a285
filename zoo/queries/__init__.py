"""Query strategies: what to ask, given what a fitted learner sees. A Query in one of these files is in the zoo."""

<<<<<<< HEAD
from zoo.queries import bayesian, propagation, uncertainty
from zoo.query import Query

FILES = (uncertainty, bayesian, propagation)
=======
from zoo.queries import bayesian, boundary, discriminative, diversity, gradient, typicality, uncertainty
from zoo.query import Query

FILES = (bayesian, boundary, discriminative, diversity, gradient, typicality, uncertainty)
>>>>>>> main
QUERIES = {query.name: query for file in FILES for query in vars(file).values() if isinstance(query, Query)}
