//! Mappings from PostgreSQL into a graph, on real servers of both.

mod actors;
mod adopted;
mod amended;
pub mod bed;
mod differences;
mod failover;
mod gates;
mod limits;
mod proof;
mod refused;
mod sales;
mod social;
mod trouble;
