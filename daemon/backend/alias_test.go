package backend_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// namer is a server in memory that has two models, and keeps by which name it was
// asked for one.
type namer struct {
	backend.Server
	asked []string
}

func (n *namer) Probe(context.Context) (job.Facts, error) {
	return job.Facts{Models: []job.Model{{Name: "Qwen-ov", Digest: "d"}, {Name: "other"}}}, nil
}

func (n *namer) Stream(_ context.Context, j job.Job, _ func(job.Head) error, _ func(job.Chunk) error) error {
	n.asked = append(n.asked, j.Model)
	if j.Chosen {
		n.asked = append(n.asked, "chosen")
	}
	return nil
}

func (n *namer) Do(req *http.Request) (*http.Response, error) {
	body := `{"models":[{"name":"Qwen-ov","model":"Qwen-ov","size": 1},{"name":"other"}]}`
	if req.Body != nil {
		sent, _ := io.ReadAll(req.Body)
		n.asked = append(n.asked, string(sent))
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func (n *namer) Unload(_ context.Context, model string) error {
	n.asked = append(n.asked, "not "+model)
	return nil
}

func (n *namer) Close() {}

func TestModelsGoByTheClientsNames(t *testing.T) {
	server := new(namer)
	set := backend.New(func(backend.Spec) backend.Server { return server },
		func(s backend.Spec, _ job.Facts) power.DeviceClass { return s.Class }, slog.New(slog.DiscardHandler))
	t.Cleanup(set.Close)
	set.Configure([]backend.Spec{spec("1", func(s *backend.Spec) {
		configured("npu", power.NPU)(s)
		s.Models = map[string]string{"qwen2.5:0.5b": "Qwen-ov", "qwen": "qwen-ov:latest"}
	})})
	now := set.Look(t.Context())
	if got := strings.Join(now.Models(), " "); got != "qwen qwen2.5:0.5b other" {
		t.Errorf("there are %s", got)
	}
	if now[0].Model("Qwen-ov") != nil || now[0].Model("qwen2.5:0.5b").Digest != "d" {
		t.Errorf("models are %+v", now[0].Facts.Models)
	}
	s := now[0].Server()
	for _, model := range []string{"qwen2.5:0.5b", "other"} {
		if err := s.Stream(t.Context(), job.Job{Model: model}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.(backend.Unloader).Unload(t.Context(), "qwen2.5:0.5b"); err != nil {
		t.Fatal(err)
	}
	ask := func(method, body string) string {
		req, err := http.NewRequestWithContext(t.Context(), method, "/api/x", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, _ := io.ReadAll(resp.Body)
		return string(got)
	}
	ask(http.MethodPost, `{"name": "qwen2.5:0.5b", "verbose":true}`)
	ask(http.MethodPost, `{"model":"other"}`)
	ask(http.MethodPost, "not JSON")
	const want = `Qwen-ov chosen other not Qwen-ov {"model":"Qwen-ov","name": "qwen2.5:0.5b", "verbose":true} {"model":"other"} not JSON`
	if got := strings.Join(server.asked, " "); got != want {
		t.Errorf("the server was asked for\n%s, want\n%s", got, want)
	}
	const listed = `{"models":[{"name":"qwen","model":"qwen","size":1},{"name":"qwen2.5:0.5b","model":"qwen2.5:0.5b","size":1},{"name":"other"}]}` + "\n"
	if got := ask(http.MethodGet, ""); got != listed {
		t.Errorf("the listing is %s", got)
	}
}
