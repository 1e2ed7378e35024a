//! The PBA server: streams augmented epochs, hosts the population search.
