//! From YAML to a valid plan.
