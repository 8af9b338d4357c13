// Package serve answers the question: how is it all joined? Read serve.go from
// top to bottom. The packages it joins do not know each other; whatever one
// needs of another is handed over here.
package serve
