//! Quantised block formats: decoding, encoding.
