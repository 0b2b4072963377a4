//! The closed set of operations the Nemotron-H family needs, each with a contract, a scalar reference that
//! *is* the definition, and fast twins that give the same bits.

pub mod dispatch;
pub mod quant;
