//! Codes, places and sentences for everything that people can mend.
