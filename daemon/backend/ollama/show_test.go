package ollama

import (
	"io"
	"net/http"
	"reflect"
	"testing"

	"github.com/joulemux/joulemux/daemon/job"
)

func TestShowTellsWhatAModelIs(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method+r.URL.Path != "POST/api/show" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, `{"details":{"family":"qwen2","parameter_size":"494.03M","quantization_level":"Q4_K_M"},
			"model_info":{"qwen2.context_length":32768,"qwen2.block_count":24,"general.architecture":"qwen2"},"capabilities":["completion","tools"]}`)
	})
	got, err := Show(t.Context(), s.Do, "m")
	want := job.Description{Family: "qwen2", Parameters: "494.03M", Quantisation: "Q4_K_M", Context: 32768, Abilities: []string{"completion", "tools"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestShowOfNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":"model 'm' not found"}`)
	})
	if _, err := Show(t.Context(), s.Do, "m"); err == nil {
		t.Error("no error")
	}
}

func FuzzShow(f *testing.F) {
	f.Add([]byte(`{"model_info":{"a.context_length":1e300}}`))
	f.Add([]byte(`{"details":{"quantization_level":"unknown"},"capabilities":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if d, err := shown(body); err == nil && (d.Context < 0 || d.Context > mostContext) {
			t.Errorf("%q has a context of %d", body, d.Context)
		}
	})
}
