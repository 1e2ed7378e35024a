//! What client and server agree on: columns, metadata keys, requests.
