"""Batched functions for users: models, embeddings, SQL, DynamoDB."""
