package pgtest

import (
	"database/sql"
	"testing"
)

// FailCommits makes the commits of batches of these numbers, such as "1, 3", fail.
// They are counted from the first by the sequence public.commits.
func FailCommits(t *testing.T, db *sql.DB, numbers string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), `
CREATE SEQUENCE public.commits;
CREATE FUNCTION public.fail_some() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('public.commits') IN (`+numbers+`) THEN
        RAISE EXCEPTION 'this commit fails';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER fail_some AFTER INSERT ON relay.batches DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.fail_some()`); err != nil {
		t.Fatal(err)
	}
}
