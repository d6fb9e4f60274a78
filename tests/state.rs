//! `state`, as a user has it: runs that go from one store to another, and stores that are damaged.

mod adopt;
mod damage;
mod moving;
mod postgres;
