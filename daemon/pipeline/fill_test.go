package pipeline

import (
	"strings"
	"testing"
	"text/template"
	"text/template/parse"
)

func TestTemplatesAreFilledAsGoFillsThem(t *testing.T) {
	d := data{
		Input: " Über allen Gipfeln ", Vars: map[string]string{"a": "yes", "none": ""},
		Stages: map[string]string{"one": "Text.", "none": ""}, Fields: map[string]map[string]string{"one": {"kind": "poem"}},
	}
	theirs := template.FuncMap{"clip": clip, "lower": strings.ToLower, "trim": strings.TrimSpace}
	for source, works := range map[string]bool{
		`a{{.Input}}b {{$.Vars.a}} {{.Stages.one}} {{$.Fields.one.kind}}`:                                    true,
		`{{if .Vars.a}}1{{else}}2{{end}}{{if .Vars.none}}1{{else if .Stages.one}}2{{else}}3{{end}}`:          true,
		`{{with .Vars.a}}{{.}} {{$.Input}}{{else}}x{{end}}{{with .Vars.none}}x{{else}}{{.Input}}{{end}}`:     true,
		`{{with .Vars.a}}{{with $.Stages.one}}{{.}}{{end}}{{.}}{{end}}`:                                      true,
		`{{or .Vars.none .Stages.none .Vars.a "x"}} {{or .Vars.none ""}} {{or .Vars.none | lower}}`:          true,
		`{{and .Vars.a .Vars.none .Stages.one}} {{and .Vars.a "x"}} {{.Vars.a | and "x"}} {{"" | or ""}}`:    true,
		`{{clip 3 .Input}} {{.Input | trim | clip 4 | lower}} {{clip 0 .Input}} {{clip 99 (trim .Input)}}`:   true,
		`{{len .Input}} {{lt (len .Vars.a) 4}} {{ge 3 3}} {{gt 1.5 2.5}} {{ne "a" "b"}} {{le "a" "b"}}`:      true,
		`{{eq .Vars.a "no" "yes"}} {{eq 1 2}} {{eq true false}} {{ne true false}} {{not .Vars.a}} {{not 0}}`: true,
		`{{1}} {{1.5}} {{true}} {{"\"q\""}} {{'a'}} {{0x10}} {{1e3}} {{-2}}`:                                 true,
		"  {{- /* nothing */ -}}  x\n{{- .Vars.a -}}\n y":                                                    true,

		`{{.Vars.b}}`: false, `{{clip .Input 3}}`: false, `{{clip 3}}`: false, `{{lower}}`: false, `{{lower 1}}`: false, `{{len 1}}`: false, `{{len}}`: false,
		`{{lt 1 "a"}}`: false, `{{lt true false}}`: false, `{{eq "a"}}`: false, `{{eq "a" 1}}`: false, `{{not}}`: false, `{{not 1 2}}`: false, `{{and}}`: false,
		`{{nil}}`: false, `{{.Input 1}}`: false, `{{1 | .Input}}`: false, `{{(.Input) 1}}`: false, `{{lower trim}}`: false, `{{clip 1.5 .Input}}`: false,
	} {
		var want strings.Builder
		err := template.Must(template.New("").Funcs(theirs).Option("missingkey=error").Parse(source)).Execute(&want, d)
		if (err == nil) != works {
			t.Errorf("%s: Go says %v", source, err)
		}
		tree := parse.New("")
		tree.Mode = parse.SkipFuncCheck
		if _, err := tree.Parse(source, "", "", make(map[string]*parse.Tree)); err != nil {
			t.Fatal(source, err)
		}
		got, err := d.fill(tree)
		if (err == nil) != works || works && got != want.String() {
			t.Errorf("%s becomes %q, %v, want %q", source, got, err, &want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "template: :1:") {
			t.Errorf("%s: %v does not say where", source, err)
		}
	}
}
