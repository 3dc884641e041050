"""First names by gender, and which of them the indirect-object task holds out.

Names held out are known to the model from other sentences, and never stand in a training sentence of that task.
"""

from transformer_lens.demo.words import listed

MALE = listed(
    "John James Robert Michael William David Richard Thomas Daniel Matthew Anthony Mark Paul Steven Andrew Kevin Brian "
    "George Edward Ronald Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon "
    "Benjamin Samuel Frank Gregory Patrick Jack Peter Henry Adam Simon Oliver Tom Dan Bob Jim Martin Sid Fred Alan "
    "Luke Max Leo Philip Arthur Walter Roger Victor"
)
FEMALE = listed(
    "Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Margaret Sandra Ashley "
    "Emily Donna Michelle Carol Amanda Melissa Deborah Stephanie Rebecca Laura Helen Amy Anna Emma Alice Jane Kate "
    "Julia Grace Rose Clara Lucy Ruth Diana Sophie Maria Eva Rachel Victoria Hannah Olivia Kelly Lily Nina Claire "
    "Ellen Judy Joan Irene Sylvia Teresa Marie Alison Paula"
)
NAMES = MALE + FEMALE
HELD_OUT_NAMES = MALE[7::5] + FEMALE[6::5]
TRAIN_NAMES = tuple(name for name in NAMES if name not in HELD_OUT_NAMES)
