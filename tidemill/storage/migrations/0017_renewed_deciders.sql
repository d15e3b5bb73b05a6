-- Id of the decider that a person renewed this one from, with the code and libraries of then; empty for one that a run or a promotion made.
ALTER TABLE deciders ADD COLUMN succeeds text COLLATE "C" NOT NULL DEFAULT '';
