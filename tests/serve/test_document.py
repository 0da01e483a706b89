"""The OpenAPI document: what may be answered, and examples that work."""


def test_answers_that_come_from_before_a_route_are_documented(http):
    for path, operations in http.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            assert {"400", "408", "413", "500"} <= set(operation["responses"]), path
            assert not {"401", "422"} & set(operation["responses"]) and "security" not in operation
    completions = http.get("/openapi.json").json()["paths"]["/v1/completions"]["post"]["responses"]
    assert {"200", "404", "429", "503"} <= set(completions)
    assert completions["429"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorResponse")


def test_the_examples_are_answered(http):
    document = http.get("/openapi.json").json()
    answered = 0
    for path, operations in document["paths"].items():
        body = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for schema in body.get("schema", {}).get("anyOf", [body.get("schema")] if body else []):
            for example in document["components"]["schemas"][schema["$ref"].split("/")[-1]]["examples"]:
                assert http.post(path, json=example).status_code == 200
                answered += 1
    assert answered == 5
