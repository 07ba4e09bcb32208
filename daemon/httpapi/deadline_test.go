package httpapi_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestADeadlineThatPassesInAStreamIsToldInItsDialect(t *testing.T) {
	for path, c := range map[string]struct{ body, kind, begun, want string }{
		"/api/chat":            {`"messages":[{"role":"user","content":"hi"}]`, "application/x-ndjson", twoTokens[0], `{"error":"deadline passed`},
		"/v1/chat/completions": {`"stream":true,"messages":[{"role":"user","content":"hi"}]`, inEvents, helEvent, `data: {"error":{"code":"deadline_passed"`},
		"/v1/messages":         {`"stream":true,` + aMessage, inEvents, startEvent + heEvent, "event: error\ndata: {\"error\":{\"message\":\"deadline passed"},
		"/v1/responses":        {`"stream":true,` + aResponse, inEvents, createdEvent + textEvent, "event: error\ndata: {\"code\":\"deadline_passed\""},
	} {
		for _, temperature := range []string{"1", "0"} { // with and without somebody else who might follow
			t.Run(path+" "+temperature, func(t *testing.T) {
				t.Parallel()
				script := func(w http.ResponseWriter, r *http.Request) {
					says(c.kind, c.begun, "")(w, r)
					<-r.Context().Done()
				}
				body := `{"model":"m","temperature":` + temperature + `,"options":{"temperature":` + temperature + `},` + c.body + `}`
				got := newRig(t, with(script)).ask("POST", path, body, "X-Deadline-Ms: 2000")
				rest, ok := strings.CutPrefix(got.body, c.begun)
				if got.status != 200 || !errors.Is(got.err, io.ErrUnexpectedEOF) || !ok || !strings.HasPrefix(rest, c.want) || !strings.HasSuffix(rest, "\n") {
					t.Errorf("%d, %v: %q", got.status, got.err, got.body)
				}
			})
		}
	}
}
