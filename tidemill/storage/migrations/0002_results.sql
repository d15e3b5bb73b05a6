CREATE TABLE models (
    model_id text PRIMARY KEY,
    dataset text NOT NULL,
    engine text NOT NULL,
    fold integer,
    path text NOT NULL,
    manifest jsonb NOT NULL,
    metrics jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX models_by_engine ON models (dataset, engine, created_at);

-- One evaluation of one configuration on one version of the data; a rerun counts once.
CREATE TABLE trials (
    trial_id text PRIMARY KEY,
    experiment text NOT NULL,
    engine text NOT NULL,
    config_hash text NOT NULL,
    data_version text NOT NULL,
    label text NOT NULL,
    universe text NOT NULL,
    returns_ref text NOT NULL,
    metrics jsonb NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (config_hash, data_version, label, universe)
);

CREATE TABLE predictions (
    dataset text COLLATE "C" NOT NULL,
    engine text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    model_id text COLLATE "C" NOT NULL,
    fold integer,
    prediction double precision,
    known_at timestamptz NOT NULL,
    PRIMARY KEY (dataset, engine, symbol, open_time, model_id),
    CHECK (known_at > open_time)
);

CREATE TABLE signals (
    dataset text COLLATE "C" NOT NULL,
    strategy text COLLATE "C" NOT NULL,
    engine text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    open_time timestamptz NOT NULL,
    weight double precision NOT NULL CHECK (weight > '-Infinity' AND weight < 'Infinity'),
    known_at timestamptz NOT NULL,
    PRIMARY KEY (dataset, strategy, engine, symbol, open_time),
    CHECK (known_at > open_time)
);

-- `account` names a book: a backtest of an engine, later a paper or live account.
CREATE TABLE positions (
    account text COLLATE "C" NOT NULL,
    symbol text COLLATE "C" NOT NULL,
    time timestamptz NOT NULL,
    quantity double precision NOT NULL CHECK (quantity > '-Infinity' AND quantity < 'Infinity'),
    PRIMARY KEY (account, symbol, time)
);

CREATE TABLE equity (
    account text COLLATE "C" NOT NULL,
    time timestamptz NOT NULL,
    equity double precision NOT NULL CHECK (equity > '-Infinity' AND equity < 'Infinity'),
    PRIMARY KEY (account, time)
);

CREATE TABLE config_versions (
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest text NOT NULL,
    content jsonb NOT NULL,
    valid_from timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX config_versions_by_time ON config_versions (valid_from);

-- The newest verdict of a check for a version of an asset's data decides whether that version may be used.
CREATE TABLE check_verdicts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset text NOT NULL,
    dataset text NOT NULL,
    data_version text NOT NULL,
    check_name text NOT NULL,
    passed boolean NOT NULL,
    severity text NOT NULL CHECK (severity IN ('error', 'warn')),
    details jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX check_verdicts_latest ON check_verdicts (asset, dataset, data_version, check_name, at DESC, id DESC);
