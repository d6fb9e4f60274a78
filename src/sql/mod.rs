//! SQL and Cypher as text: identifiers, splitting, classification. Pure.
