//! Mappings from PostgreSQL into a graph, on real servers of both.

mod bed;
mod differences;
mod gates;
mod proof;
mod refused;
mod social;
mod trouble;
