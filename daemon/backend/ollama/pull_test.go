package ollama

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
)

func TestPullTellsWhatTheServerSays(t *testing.T) {
	t.Parallel()
	const layer = `{"status":"pulling 0123456789ab","digest":"sha256:01","total":100,"completed":40}`
	for name, tt := range map[string]struct {
		status int
		body   string
		steps  int
		code   job.Code // "" is none, or a cut
		cut    bool
		says   string
	}{
		"a whole pull":              {body: `{"status":"pulling manifest"}` + "\n\n" + layer + "\n" + `{"status":"success"}` + "\n", steps: 3},
		"nothing after success":     {body: `{"status":"success"}` + "\n" + "garbage", steps: 1},
		"an end without success":    {body: layer + "\n", steps: 1, cut: true, says: "unexpected EOF"},
		"no answer":                 {cut: true, says: "unexpected EOF"},
		"no JSON":                   {body: "<html>\n", cut: true, says: "cannot be read"},
		"an error in the end":       {body: layer + "\n" + `{"error":"403: denied"}` + "\n", steps: 1, code: job.BackendFailed, says: "403: denied"},
		"an error at once":          {status: 500, body: `{"error":"pull model manifest: 401: who are you"}`, code: job.BackendFailed, says: "who are you"},
		"a model that is not there": {status: 500, body: `{"error":"pull model manifest: file does not exist"}`, code: job.ModelNotFound, says: "registry has no such model"},
		"a bad name":                {status: 400, body: `{"error":"invalid model name"}`, code: job.Invalid, says: "invalid model name"},
		"a server that cannot":      {status: 501, body: `{"error":"vllm does nothing like /api/pull"}`, code: job.Unsupported, says: "vllm does nothing"},
		"an error without words":    {status: 502, body: `oops`, code: job.BackendFailed, says: "502"},
		"a line without an end":     {body: strings.Repeat("x", longestStep+1), cut: true, says: "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked string
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				asked = r.Method + " " + r.URL.Path + " " + string(body)
				if tt.status != 0 {
					w.WriteHeader(tt.status)
				}
				_, _ = io.WriteString(w, tt.body)
			})
			steps := 0
			err := Pull(t.Context(), s.Do, "tiny", true, func(Step) { steps++ })
			if steps != tt.steps {
				t.Errorf("%d steps, want %d", steps, tt.steps)
			}
			var e *job.Error
			var cut *CutError
			switch {
			case tt.code == "" && !tt.cut && err != nil:
				t.Error(err)
			case tt.code != "" && (!errors.As(err, &e) || e.Code != tt.code), tt.cut && !errors.As(err, &cut), err != nil && !strings.Contains(err.Error(), tt.says):
				t.Errorf("got %v, want %q that says %q, or a cut: %v", err, tt.code, tt.says, tt.cut)
			}
			if want := `POST /api/pull {"model":"tiny","insecure":true,`; !strings.HasPrefix(asked, want) {
				t.Errorf("asked %s", asked)
			}
		})
	}
}

func TestPullOfNobodyIsCut(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	var cut *CutError
	if err := Pull(t.Context(), s.Do, "tiny", false, func(Step) {}); !errors.As(err, &cut) {
		t.Errorf("got %v", err)
	}
}

func TestPullEndsWithItsContext(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, `{"status":"pulling manifest"}`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	err := Pull(ctx, s.Do, "tiny", false, func(Step) { cancel(job.Cancelled) })
	if !errors.Is(err, job.Cancelled) {
		t.Errorf("got %v", err)
	}
	<-gone
}

func FuzzPull(f *testing.F) {
	f.Add(`{"status":"pulling manifest"}` + "\n" + `{"status":"success"}`)
	f.Add(`{"error":"pull model manifest: file does not exist"}`)
	f.Add(`{"status":"a","digest":"b","total":-1,"completed":99999999999999999999}`)
	f.Fuzz(func(t *testing.T, body string) {
		steps := 0
		err := readPull(strings.NewReader(body), func(Step) { steps++ })
		if err == nil && steps == 0 {
			t.Errorf("%q is a success, and no step", body)
		}
	})
}
