"""The rules, one file per family of operators. A new operator is one more row in one of them."""
