//! Reading statements: how deep they may be. What is deeper isn't read, and so unknown, which counts as destructive.

/// The most bytes of a name that PostgreSQL keeps; it cuts the rest off, with a notice that nobody reads.
pub const MOST_NAME_BYTES: usize = 63;

/// How much of a name of PostgreSQL's is kept where a few letters are to come behind it, in bytes.
pub const NAME_STEM_BYTES: usize = 58;

/// The most parentheses, CASEs, prefix operators and the like inside each other in PostgreSQL's SQL. The parser goes down with each, by
/// up to 4 KiB of stack in a debug build.
pub const POSTGRES_NESTED_MAX: usize = 128;

/// The most words in one chain such as `1 + 1 + …`, which makes a level of the tree of each sign; `a = a = …` even goes
/// down with each, by 700 bytes.
///
/// Both at once take two thirds of the 2 MiB that a thread of the runtime has. What is deeper isn't read, and so unknown.
pub const POSTGRES_CHAIN_MAX: usize = 2_000;

/// The deepest tree that is built of SQLite's SQL. Chains like `1 + 1 + …` make a level of each sign without tripping the parser's own
/// limit, and dropping the tree goes down all of them: 16,000 fit on a stack of 2 MiB in a debug build, 32,000 don't.
/// SQLite itself takes expressions of 1,000 levels.
pub const SQLITE_DEPTH_MAX: usize = 8_000;

/// How deep values of Cypher may stand inside each other to be read. Each level goes through what is inside it again.
pub const CYPHER_NESTED_MAX: u32 = 32;
