-- A book is what one configuration of an engine predicts of a dataset: the name under which its folds lie in the lake. It holds one
-- prediction of a symbol at a time, so a write can tell which rows are not said any more. Rows from before do not say whose they
-- are; the next run writes all of them again.
TRUNCATE predictions;
ALTER TABLE predictions
    DROP CONSTRAINT predictions_pkey,
    ADD COLUMN book text COLLATE "C" NOT NULL,
    ADD PRIMARY KEY (book, symbol, open_time),
    ALTER COLUMN fold SET NOT NULL;
CREATE INDEX predictions_by_fold ON predictions (book, fold);
