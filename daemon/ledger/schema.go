package ledger

import (
	"errors"
	"fmt"

	"github.com/ncruces/go-sqlite3"
)

// migrations make a file of version n into one of version n+1. What has been
// released is never changed; new ones are added at the end.
func migrations() []string {
	return []string{
		// Times are nanoseconds since 1970, durations nanoseconds, energies
		// microjoules. A job's id is not unique: a client may choose it.
		`CREATE TABLE job (
			n             INTEGER PRIMARY KEY,
			id            TEXT    NOT NULL,
			day           TEXT    NOT NULL,
			arrived       INTEGER NOT NULL,
			ended         INTEGER NOT NULL,
			backend       TEXT    NOT NULL,
			model         TEXT    NOT NULL,
			hardware      TEXT    NOT NULL,
			client        TEXT    NOT NULL,
			class         TEXT    NOT NULL,
			tier          TEXT    NOT NULL,
			on_battery    INTEGER NOT NULL,
			prompt_tokens INTEGER NOT NULL,
			tokens        INTEGER NOT NULL,
			load_time     INTEGER NOT NULL,
			prefill_time  INTEGER NOT NULL,
			decode_time   INTEGER NOT NULL,
			first_token   INTEGER NOT NULL,
			total_time    INTEGER NOT NULL,
			energy        INTEGER NOT NULL,
			gross         INTEGER NOT NULL,
			load          INTEGER NOT NULL,
			tail          INTEGER NOT NULL,
			quality       TEXT    NOT NULL,
			scope         TEXT    NOT NULL,
			source        TEXT    NOT NULL,
			uncertainty   REAL    NOT NULL,
			coverage      REAL    NOT NULL,
			shared        INTEGER NOT NULL,
			failed        TEXT    NOT NULL
		) STRICT;
		CREATE INDEX job_id ON job (id);
		CREATE INDEX job_ended ON job (ended);

		CREATE TABLE account (
			day           TEXT    NOT NULL,
			backend       TEXT    NOT NULL,
			model         TEXT    NOT NULL,
			client        TEXT    NOT NULL,
			quality       TEXT    NOT NULL,
			jobs          INTEGER NOT NULL,
			failed        INTEGER NOT NULL,
			prompt_tokens INTEGER NOT NULL,
			tokens        INTEGER NOT NULL,
			energy        INTEGER NOT NULL,
			gross         INTEGER NOT NULL,
			load          INTEGER NOT NULL,
			tail          INTEGER NOT NULL,
			PRIMARY KEY (day, backend, model, client, quality)
		) STRICT, WITHOUT ROWID;

		CREATE TABLE learned (
			backend    TEXT    NOT NULL,
			model      TEXT    NOT NULL,
			on_battery INTEGER NOT NULL,
			figure     TEXT    NOT NULL,
			value      REAL    NOT NULL,
			count      INTEGER NOT NULL,
			seen       INTEGER NOT NULL,
			PRIMARY KEY (backend, model, on_battery, figure)
		) STRICT, WITHOUT ROWID;`,

		// What tells apart those whose answers are of different lengths.
		`ALTER TABLE job ADD COLUMN kind       TEXT    NOT NULL DEFAULT '';
		ALTER TABLE job ADD COLUMN completion INTEGER NOT NULL DEFAULT 0;
		ALTER TABLE job ADD COLUMN max_tokens INTEGER NOT NULL DEFAULT 0;`,

		// What ran elsewhere, and was charged for: in billionths of a currency's
		// unit. Sums in different currencies are kept apart, and what was not
		// charged for has none.
		`ALTER TABLE job ADD COLUMN radio         INTEGER NOT NULL DEFAULT 0;
		ALTER TABLE job ADD COLUMN price         INTEGER NOT NULL DEFAULT 0;
		ALTER TABLE job ADD COLUMN currency      TEXT    NOT NULL DEFAULT '';
		ALTER TABLE job ADD COLUMN price_unknown INTEGER NOT NULL DEFAULT 0;
		ALTER TABLE account ADD COLUMN radio INTEGER NOT NULL DEFAULT 0;

		CREATE TABLE payment (
			day      TEXT    NOT NULL,
			backend  TEXT    NOT NULL,
			model    TEXT    NOT NULL,
			client   TEXT    NOT NULL,
			currency TEXT    NOT NULL,
			jobs     INTEGER NOT NULL,
			unknown  INTEGER NOT NULL,
			price    INTEGER NOT NULL,
			PRIMARY KEY (day, backend, model, client, currency)
		) STRICT, WITHOUT ROWID;`,
	}
}

// errMigration is a fault of this program, which should cost nobody the file.
var errMigration = errors.New("migration")

// migrate brings the file to the version that this program knows, step by
// step, all or nothing. It leaves a file of a later program alone.
func migrate(db *sqlite3.Conn, steps []string) (err error) {
	version, err := number(db, "PRAGMA user_version")
	if err != nil {
		return err
	}
	switch {
	case version == len(steps):
		return nil
	case version > len(steps):
		return fmt.Errorf("it has version %d, written by a later joulemux than this, which knows %d", version, len(steps))
	}
	tx, err := db.BeginImmediate()
	if err != nil {
		return err
	}
	defer tx.End(&err)
	for _, step := range steps[version:] {
		if err := db.Exec(step); err != nil {
			return fmt.Errorf("%w of version %d: %w", errMigration, version, err)
		}
	}
	return db.Exec(fmt.Sprintf("PRAGMA user_version = %d", len(steps)))
}

// number returns what a query that yields one number yields.
func number(db *sqlite3.Conn, query string) (int, error) {
	s, _, err := db.Prepare(query)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	if !s.Step() {
		return 0, s.Err()
	}
	return s.ColumnInt(0), nil
}
