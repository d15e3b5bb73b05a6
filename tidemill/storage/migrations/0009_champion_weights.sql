-- How much weight each engine has in the book that was promoted: engine -> weight, as it was judged. Empty for a book of one
-- engine, and for champions of before, whose engines have equal weights.
ALTER TABLE champions ADD COLUMN weights jsonb NOT NULL DEFAULT '{}';
