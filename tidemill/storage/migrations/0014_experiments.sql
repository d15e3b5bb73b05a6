-- Experiments that were run in this home. id: of the content, name included; another content is another experiment. content: the
-- experiment as JSON, without what stands at its default. origin: the file that it was read from, empty for none. anchor: open time of
-- the first bar of its first test window when it was first run, from which rebalancing is counted; it never changes. tracked_since: runs
-- again with every new bar since then; null: it does not.
CREATE TABLE experiments (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    content text NOT NULL,
    origin text NOT NULL DEFAULT '',
    mode text NOT NULL DEFAULT 'backtest' CHECK (mode IN ('backtest', 'paper', 'live')),
    anchor timestamptz,
    tracked_since timestamptz,
    first_run_at timestamptz NOT NULL,
    last_run_at timestamptz NOT NULL
);
CREATE INDEX experiments_by_run ON experiments (last_run_at DESC);
