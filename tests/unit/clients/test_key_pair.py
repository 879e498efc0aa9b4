"""AWS key pairs on the command line: every form that AWS's own tools print."""

import pytest
from keyswitch_cli.key_pair import parse
from keyswitch_cli.problem import Problem

FORMS = {
    "credentials": "[a]\naws_access_key_id = AKID\naws_secret_access_key=s/e+c==\naws_session_token = tok==\n",
    "exports": "export AWS_ACCESS_KEY_ID=AKID\nexport AWS_SECRET_ACCESS_KEY=s/e+c==\nexport AWS_SESSION_TOKEN=tok==\n",
    "sts": '{"Credentials": {"AccessKeyId": "AKID", "SecretAccessKey": "s/e+c==", "SessionToken": "tok=="}}',
    "flat": '{"AccessKeyId": "AKID", "SecretAccessKey": "s/e+c==", "SessionToken": "tok==", "Version": 1}',
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_a_pair_is_read(text: str) -> None:
    pair = parse(text, "eu-west-1").aws
    found = (pair.access_key_id, pair.secret_access_key, pair.session_token, pair.region)
    assert found == ("AKID", "s/e+c==", "tok==", "eu-west-1")


def test_a_long_lived_pair_has_no_token() -> None:
    created = '{"AccessKey": {"UserName": "u", "AccessKeyId": "AKID", "SecretAccessKey": "sec", "Status": "Active"}}'
    assert parse(created, "eu-west-1").aws.session_token == ""


@pytest.mark.parametrize(
    "text",
    ["sk-123", "{broken", "{}", '{"AccessKeyId": 7}', "aws_access_key_id = AKID", FORMS["exports"] + FORMS["exports"]],
)
def test_what_is_no_pair_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(Problem) as caught:
        parse(text, "eu-west-1")
    assert "AKID" not in str(caught.value)
    assert "sk-123" not in str(caught.value)
