-- Which file or folder owns the name under which its bars are kept; '' for a name that was given to an import.
CREATE TABLE sources (
    venue text COLLATE "C" PRIMARY KEY,
    origin text NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now()
);
