-- News items. The first receipt of an item stays: when something was known does not change by hearing it again.
CREATE TABLE news (
    source text COLLATE "C" NOT NULL,
    item_id text COLLATE "C" NOT NULL,
    known_at timestamptz NOT NULL,
    published_at timestamptz,
    -- False: imported history without a receipt, whose time of publication stands in.
    vintage_known boolean NOT NULL,
    -- As the source states them, with blanks between them.
    symbols text NOT NULL,
    tags text NOT NULL,
    headline text NOT NULL,
    body text NOT NULL,
    publisher text NOT NULL,
    url text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, item_id),
    CHECK (headline <> '' OR body <> '')
);
CREATE INDEX news_by_time ON news (source, known_at, item_id);
