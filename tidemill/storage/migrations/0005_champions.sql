-- Which models trade a dataset, one after another. The current champion is the newest row that was not undone: promotion is one
-- insert, undoing it one update, and both are seen by everybody at once. models: engine -> model_id. evidence: what was
-- compared, on which window, after which costs. trained_until: end of the data the models saw. source: policy or operator.
CREATE TABLE champions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL,
    book text NOT NULL,
    models jsonb NOT NULL,
    experiment jsonb NOT NULL,
    trained_until timestamptz NOT NULL,
    reason text NOT NULL,
    evidence jsonb NOT NULL,
    source text NOT NULL CHECK (source IN ('policy', 'operator')),
    promoted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    undone_at timestamptz,
    undone_why text
);
CREATE INDEX champions_by_dataset ON champions (dataset, id DESC);
